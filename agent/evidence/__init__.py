"""Hashes, signatures, manifests, custody and receipts: what anyone can check without us."""
