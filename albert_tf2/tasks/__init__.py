"""Fine-tuning tasks: files -> examples -> metrics -> submissions."""
