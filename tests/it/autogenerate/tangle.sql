CREATE FUNCTION shout(word text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT upper(word) $$;
CREATE FUNCTION is_code(word text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT word ~ '^[a-z]+$' $$;
COMMENT ON FUNCTION shout(text) IS 'It''s loud; \ and "quoted".';

CREATE TABLE owners (
    owner_id bigint GENERATED ALWAYS AS IDENTITY,
    code     text COLLATE "C" NOT NULL,
    loud     text GENERATED ALWAYS AS (shout(code)) STORED,
    rank     integer NOT NULL DEFAULT 1,
    note     varchar(40),
    since    date DEFAULT '2020-01-01',
    CONSTRAINT owners_pkey PRIMARY KEY (owner_id),
    CONSTRAINT owners_code UNIQUE (code),
    CONSTRAINT owners_code_form CHECK (is_code(code)),
    CONSTRAINT owners_rank CHECK (rank BETWEEN 0 AND 1000)
) WITH (fillfactor = 80, autovacuum_enabled = true);
CREATE INDEX owners_loud ON owners (shout(code), rank DESC) WHERE rank > 0;
COMMENT ON TABLE owners IS 'Owners.';
COMMENT ON COLUMN owners.code IS 'Code.';
COMMENT ON COLUMN owners.loud IS 'Code, loud.';
COMMENT ON CONSTRAINT owners_rank ON owners IS 'Bounded.';
COMMENT ON INDEX owners_loud IS 'By loudness.';

CREATE TABLE things (
    thing_id serial,
    owner_id bigint NOT NULL,
    code     text COLLATE "C",
    weight   numeric(8, 2) NOT NULL DEFAULT 0,
    price    integer NOT NULL,
    total    numeric GENERATED ALWAYS AS (weight * price) STORED,
    "Odd one" text DEFAULT 'a;b -- c',
    made_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT things_pkey PRIMARY KEY (thing_id),
    CONSTRAINT things_owner FOREIGN KEY (owner_id) REFERENCES owners (owner_id) ON DELETE CASCADE,
    CONSTRAINT things_code FOREIGN KEY (code) REFERENCES owners (code) DEFERRABLE
);
CREATE INDEX things_owner_id ON things (owner_id) INCLUDE (price);
CREATE UNIQUE INDEX things_odd ON things (lower("Odd one"), thing_id);

-- Two tables that refer to each other.
CREATE TABLE hens (hen_id integer PRIMARY KEY, egg_id integer, legs integer GENERATED ALWAYS AS (abs(2)) STORED);
CREATE TABLE eggs (egg_id integer PRIMARY KEY, hen_id integer REFERENCES hens (hen_id));
ALTER TABLE hens ADD CONSTRAINT hens_egg FOREIGN KEY (egg_id) REFERENCES eggs (egg_id);

CREATE TABLE journal (line text);

CREATE VIEW heavy AS SELECT thing_id, owner_id, weight, price FROM things WHERE weight > 10;
CREATE VIEW heavy_owners WITH (security_barrier = true) AS
    SELECT o.code, o.loud, count(*) AS n, sum(h.weight) AS weight
    FROM owners o JOIN heavy h USING (owner_id) GROUP BY o.code, o.loud;
CREATE VIEW heaviest AS SELECT code, shout(code) AS loud, weight FROM heavy_owners ORDER BY weight DESC LIMIT 1;
COMMENT ON VIEW heaviest IS 'The heaviest.';
COMMENT ON COLUMN heavy.weight IS 'In kilograms.';

CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.made_at := now(); -- always
    RETURN NEW;
END
$$;
CREATE TRIGGER things_touch BEFORE UPDATE OF price ON things
    FOR EACH ROW WHEN (OLD.price IS DISTINCT FROM NEW.price) EXECUTE FUNCTION touch();
CREATE TRIGGER things_quiet AFTER INSERT ON things EXECUTE FUNCTION touch();
ALTER TABLE things DISABLE TRIGGER things_quiet;
COMMENT ON TRIGGER things_touch ON things IS 'Touches.';
CREATE FUNCTION weight_of(heavy) RETURNS numeric LANGUAGE sql STABLE AS $$ SELECT $1.weight $$;
