-- Remove what 010_cache.sql made. Answers are asked for again.

DROP TABLE cached_answers;
