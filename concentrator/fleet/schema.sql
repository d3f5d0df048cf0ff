-- What the consumer writes. Run as often as you like: nothing that is there is changed.
CREATE TABLE IF NOT EXISTS concentrator (
    concentrator_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site text NOT NULL,
    name text NOT NULL,
    state text NOT NULL DEFAULT 'unknown',
    boot_id text NOT NULL DEFAULT '',
    software text NOT NULL DEFAULT '',
    state_at timestamptz,
    health jsonb,
    UNIQUE (site, name)
);
CREATE TABLE IF NOT EXISTS meter (
    meter_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity text NOT NULL UNIQUE,
    medium text NOT NULL,
    -- Where it was heard last: a meter may move.
    concentrator_id integer NOT NULL REFERENCES concentrator
);
CREATE TABLE IF NOT EXISTS channel (
    channel_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id integer NOT NULL REFERENCES meter,
    profile text NOT NULL,
    obis text NOT NULL,
    unit text NOT NULL,
    scaler smallint NOT NULL,
    period_s integer NOT NULL,
    UNIQUE (meter_id, profile, obis, unit, scaler, period_s)
);
-- A value is its channel and its time; of two that came, the one with the higher number was sent later.
CREATE TABLE IF NOT EXISTS reading (
    channel_id integer NOT NULL,
    at timestamptz NOT NULL,
    value bigint,
    -- What is no number, or none that fits.
    text text,
    status bigint,
    quality text,
    concentrator_id integer NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (channel_id, at)
);
CREATE TABLE IF NOT EXISTS meter_event (
    meter_id integer NOT NULL REFERENCES meter,
    log text NOT NULL,
    at timestamptz NOT NULL,
    code bigint NOT NULL,
    ordinal integer NOT NULL,
    event_group text NOT NULL,
    severity text NOT NULL,
    kind text NOT NULL,
    detail text NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (meter_id, log, at, code, ordinal)
);
-- Messages that could not be understood: kept for somebody to look at, and out of the way.
CREATE TABLE IF NOT EXISTS rejected (
    rejected_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    topic text NOT NULL,
    payload bytea NOT NULL,
    reason text NOT NULL
);
CREATE OR REPLACE VIEW reading_value AS
    SELECT meter.identity AS meter, channel.profile, channel.obis, reading.at,
           reading.value * (10::numeric ^ channel.scaler) AS value, channel.unit, channel.period_s, reading.text,
           reading.status, reading.quality
    FROM reading JOIN channel USING (channel_id) JOIN meter USING (meter_id);
-- With TimescaleDB the readings are cut into a piece for each week; without it the same table does.
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb') THEN
        CREATE EXTENSION IF NOT EXISTS timescaledb;
        PERFORM create_hypertable('reading', 'at', chunk_time_interval => interval '7 days', if_not_exists => true);
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'timescaledb is there but may not be used';
END $$;
