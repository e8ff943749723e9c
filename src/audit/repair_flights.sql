-- Dates the flights whose stored date is not the one that their airport gives.
UPDATE flights f
SET data_date = truth.data_date, time_zone_known = truth.time_zone_known, updated_at = now()
FROM (
    SELECT s.flight_id, local_date(s.scheduled_departure, a.timezone) AS data_date,
           a.timezone IS NOT NULL AS time_zone_known
    FROM flights s
    LEFT JOIN airports a ON a.iata_code = s.origin
    WHERE s.deleted_at IS NULL
) truth
WHERE f.flight_id = truth.flight_id
  AND (f.data_date, f.time_zone_known) IS DISTINCT FROM (truth.data_date, truth.time_zone_known)
