-- How often the services of a decky are changed, such as `30m`.
ALTER TABLE deckies ADD COLUMN mutate_every TEXT;
