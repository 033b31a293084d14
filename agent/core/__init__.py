"""What every stage stands on: records, errors, time, configuration, wire and store."""
