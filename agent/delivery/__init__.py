"""The way to the centre: durable queue, live link, file transfer."""
