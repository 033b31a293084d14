"""The centre's end of the wire for one site: reassembles, verifies, stores, signs receipts."""
