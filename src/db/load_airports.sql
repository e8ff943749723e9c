-- Takes over the shipped airports. A zone that this server's time zone data does not know counts as
-- unknown, rather than fail every flight from there.
INSERT INTO airports
SELECT s.iata_code, s.icao_code, s.name, s.city, s.subdivision, s.country, s.elevation_ft,
       s.latitude, s.longitude, z.name
FROM shipped_airports s
LEFT JOIN pg_timezone_names z ON z.name = s.timezone
ORDER BY s.iata_code
ON CONFLICT (iata_code) DO UPDATE
SET icao_code = excluded.icao_code, name = excluded.name, city = excluded.city,
    subdivision = excluded.subdivision, country = excluded.country, elevation_ft = excluded.elevation_ft,
    latitude = excluded.latitude, longitude = excluded.longitude, timezone = excluded.timezone
