"""Model families of vision-language students and teachers: plain data, and the adapter that reads it."""
