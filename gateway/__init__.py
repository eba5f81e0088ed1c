"""The gateway: who asks, over HTTP, and when a replica has to catch up before it answers."""
