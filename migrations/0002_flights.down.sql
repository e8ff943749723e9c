DROP TRIGGER airports_date_their_flights ON airports;
DROP FUNCTION airports_date_their_flights();
DROP TABLE flights;
DROP FUNCTION local_date(timestamptz, text);
