"""Activity: counts of what users did and of what happened to items, built from a log or pushed as events come."""
