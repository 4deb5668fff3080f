"""What the scripts share: options, the run with its data and its folder, the report, several seeds."""
