"""What is made for people to read: the catalogue, first configs, lists of runs, the state of a machine."""
