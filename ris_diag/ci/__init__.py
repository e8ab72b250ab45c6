"""What a run leaves for a CI: job summary, annotations, JUnit XML, and workflows to begin with."""
