"""What Outpost costs, each measured beside a named peer in the same run: `./run bench [NAME]`."""
