"""Ground floor: columns and label rules, feature spec, artifact layouts, paths, errors. Imports nothing of the rest."""
