"""What the subcommands of `keras-reformer` do, one module a command."""
