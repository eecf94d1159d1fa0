"""The subcommands of `esmm`, by what they are about. Heavy imports stay inside the commands: --help is instant."""
