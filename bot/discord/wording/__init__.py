"""Every text a person can receive on Discord, by area, so that its wording is read in one place."""
