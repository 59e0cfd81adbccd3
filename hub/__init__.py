"""The shipping department: build, check and publish snapshots, and keep the catalogue on the Hugging Face Hub."""
