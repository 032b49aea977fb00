"""What all commands share: parsers, arguments, progress, exit codes and the output of errors."""
