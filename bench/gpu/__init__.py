"""One command for the day with a GPU: build, compile, test, measure and judge (`python -m bench.gpu`).

`steps.py` runs each step in a process of its own with its own time limit, so that nothing that hangs or crashes takes
the rest along. `measure.py` is the process that times rows; `operators.py`, `attention.py`, `recurrent.py`,
`encoders.py` and `language.py` say which rows there are; `goals.py` judges them and `table.py` prints them.
"""
