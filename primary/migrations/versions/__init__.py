"""One file per step, in the order of their numbers; a step that was released is never edited."""
