"""The seven sub-tasks: what is asked (kinds), of whom (generate), in which words (templates, render), and scoring."""
