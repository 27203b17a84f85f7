"""What can be learned; `open_task` tells which of the tasks a config is of."""
