"""Plans: the nodes that a run or an experiment needs, and the executor that builds them."""
