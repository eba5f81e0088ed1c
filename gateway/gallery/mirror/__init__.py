"""The upstream mirror: what a user rates and counts here is told to a server of theirs that speaks Stash's GraphQL."""
