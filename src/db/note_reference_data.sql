-- Remembers which edition of the airports is loaded.
INSERT INTO reference_data (name, checksum, row_count)
VALUES ('airports', $1, $2)
ON CONFLICT (name) DO UPDATE
SET checksum = excluded.checksum, row_count = excluded.row_count, loaded_at = now()
