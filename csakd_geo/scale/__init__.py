"""What a continent of scenes takes: the work of one scene, and the run that does it for all."""
