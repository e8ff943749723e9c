-- Reference data that MarketData depends on: which local date a departure falls on is decided by
-- the time zone of its origin airport.

CREATE TABLE airports (
    iata_code    text COLLATE "C" NOT NULL,
    icao_code    text,
    name         text NOT NULL,
    city         text,
    subdivision  text,
    country      text,
    elevation_ft integer,
    latitude     double precision,
    longitude    double precision,
    timezone     text,
    CONSTRAINT airports_pkey PRIMARY KEY (iata_code),
    CONSTRAINT airports_iata_code_form CHECK (iata_code ~ '^[A-Z]{3}$')
);

COMMENT ON TABLE airports IS 'Every airport with an IATA code; origin and destination of flights refer to it by code, unknown codes are allowed there. Source: airportsdata (MIT).';
COMMENT ON COLUMN airports.iata_code IS 'IATA airport code, three capital letters; the key.';
COMMENT ON COLUMN airports.icao_code IS 'ICAO airport code, if it has one.';
COMMENT ON COLUMN airports.name IS 'Name of the airport.';
COMMENT ON COLUMN airports.city IS 'City it serves.';
COMMENT ON COLUMN airports.subdivision IS 'State, province or region.';
COMMENT ON COLUMN airports.country IS 'ISO 3166 alpha-2 country code.';
COMMENT ON COLUMN airports.elevation_ft IS 'Elevation above mean sea level, in feet.';
COMMENT ON COLUMN airports.latitude IS 'Latitude in degrees, north positive.';
COMMENT ON COLUMN airports.longitude IS 'Longitude in degrees, east positive.';
COMMENT ON COLUMN airports.timezone IS 'IANA time zone; NULL where unknown: departures then count on their UTC date and MarketData says is_estimated.';

CREATE TABLE reference_data (
    name      text NOT NULL,
    checksum  text NOT NULL,
    row_count bigint NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT reference_data_pkey PRIMARY KEY (name)
);

COMMENT ON TABLE reference_data IS 'Which edition of each shipped data set is loaded, so that a boot loads it once.';
COMMENT ON COLUMN reference_data.name IS 'Name of the data set: airports.';
COMMENT ON COLUMN reference_data.checksum IS 'Hash of the shipped file.';
COMMENT ON COLUMN reference_data.row_count IS 'Rows in the shipped file.';
COMMENT ON COLUMN reference_data.loaded_at IS 'When this edition was loaded.';
