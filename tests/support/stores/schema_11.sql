PRAGMA auto_vacuum = 2;
PRAGMA application_id = 1329873779;
PRAGMA user_version = 11;
BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'concentrator','m0001_initial','2026-11-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'concentrator','m0002_network_history','2026-11-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(3,'concentrator','m0003_collection','2026-11-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(4,'concentrator','m0004_audit','2026-11-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(5,'concentrator','m0005_registration','2026-11-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(6,'concentrator','m0006_meter_events','2026-11-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(7,'concentrator','m0007_kpi','2026-11-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(8,'concentrator','m0008_acknowledged_ranges','2026-11-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(9,'concentrator','m0009_parked_batches','2026-11-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(10,'concentrator','m0010_head_end_counters','2026-11-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES(11,'concentrator','m0011_firmware','2026-11-01 00:00:00.000000+00:00');
CREATE TABLE acknowledged_range (
        destination_id INTEGER NOT NULL REFERENCES destination (destination_id),
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (destination_id, first)
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "acknowledged_range" VALUES(1,4,5);
INSERT INTO "acknowledged_range" VALUES(1,7,7);
INSERT INTO "acknowledged_range" VALUES(2,9,9);
CREATE TABLE audit (
        audit_id INTEGER PRIMARY KEY AUTOINCREMENT,
        order_id TEXT NOT NULL,
        operation TEXT NOT NULL,
        meter TEXT NOT NULL,
        origin TEXT NOT NULL,
        arguments TEXT NOT NULL,
        begun_at INTEGER NOT NULL,
        completed_at INTEGER,
        state TEXT NOT NULL,
        before TEXT NOT NULL,
        after TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT
    ;
INSERT INTO "audit" VALUES(1,'o1','disconnect','ODC1','local','{}',1793491200,1793491201,'done','{}','{}','');
CREATE TABLE batch (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        profile TEXT NOT NULL,
        first_at INTEGER NOT NULL,
        last_at INTEGER NOT NULL,
        reading_count INTEGER NOT NULL,
        received_at INTEGER NOT NULL
    , handling INTEGER NOT NULL DEFAULT 0) STRICT
    ;
INSERT INTO "batch" VALUES(1,1,'1-0:99.1.0*255',1793492100,1793492100,2,1793492160,0);
INSERT INTO "batch" VALUES(2,1,'1-0:99.1.0*255',1793493000,1793493000,2,1793493060,0);
INSERT INTO "batch" VALUES(3,1,'1-0:99.1.0*255',1793493900,1793493900,2,1793493960,0);
INSERT INTO "batch" VALUES(4,1,'1-0:99.1.0*255',1793494800,1793494800,2,1793494860,0);
INSERT INTO "batch" VALUES(5,1,'1-0:99.1.0*255',1793495700,1793495700,2,1793495760,0);
INSERT INTO "batch" VALUES(6,1,'1-0:99.1.0*255',1793496600,1793496600,2,1793496660,1);
INSERT INTO "batch" VALUES(7,1,'1-0:99.1.0*255',1793497500,1793497500,2,1793497560,0);
INSERT INTO "batch" VALUES(8,1,'1-0:99.1.0*255',1793498400,1793498400,2,1793498460,0);
INSERT INTO "batch" VALUES(9,2,'0-0:24.3.0*255',1793491200,1793491200,1,1793491205,0);
INSERT INTO "batch" VALUES(10,1,'0-0:99.98.1*255',1793491200,1793491200,1,1793491200,0);
CREATE TABLE channel (
        channel_id INTEGER PRIMARY KEY,
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        profile TEXT NOT NULL,
        obis TEXT NOT NULL,
        class_id INTEGER NOT NULL,
        attribute INTEGER NOT NULL,
        unit INTEGER NOT NULL,
        scaler INTEGER NOT NULL,
        period_s INTEGER NOT NULL,
        UNIQUE (meter_id, profile, obis, class_id, attribute, unit, scaler)
    ) STRICT
    ;
INSERT INTO "channel" VALUES(1,1,'1-0:99.1.0*255','1-0:1.8.0*255',3,2,30,0,900);
INSERT INTO "channel" VALUES(2,1,'1-0:99.1.0*255','1-0:2.8.0*255',3,2,30,0,900);
INSERT INTO "channel" VALUES(3,2,'0-0:24.3.0*255','8-0:1.0.0*255',3,2,13,-3,0);
CREATE TABLE closed_gap (
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        profile TEXT NOT NULL,
        first_at INTEGER NOT NULL,
        last_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        closed_at INTEGER NOT NULL,
        PRIMARY KEY (meter_id, profile, first_at)
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "closed_gap" VALUES(1,'1-0:99.1.0*255',1793482200,1793490300,'lost',1793491200);
CREATE TABLE destination (
        destination_id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        cursor INTEGER NOT NULL,
        acknowledged_at INTEGER
    , retired_at INTEGER) STRICT
    ;
INSERT INTO "destination" VALUES(1,'mqtt',2,1793500200,NULL);
INSERT INTO "destination" VALUES(2,'push',0,NULL,NULL);
CREATE TABLE event (
        event_id INTEGER PRIMARY KEY,
        happened_at INTEGER NOT NULL,
        meter_id INTEGER,
        code TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT
    ;
INSERT INTO "event" VALUES(1,1793491200,1,'value_differs','had 1, meter now says 2');
CREATE TABLE firmware_campaign (
        name TEXT PRIMARY KEY,
        definition TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL,
        forgiven INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "firmware_campaign" VALUES('spring','{}','paused','by somebody',1793491200,1793491260,1);
CREATE TABLE firmware_meter (
        campaign TEXT NOT NULL REFERENCES firmware_campaign (name),
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        state TEXT NOT NULL,
        blocks_done INTEGER NOT NULL,
        blocks INTEGER NOT NULL,
        block_size INTEGER NOT NULL,
        tries INTEGER NOT NULL,
        next_try_at INTEGER NOT NULL,
        activated_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL,
        from_version TEXT NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (campaign, meter_id)
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "firmware_meter" VALUES('spring',1,'transferring',40,100,128,2,1793492100,0,1793491260,'1.0','no answer');
CREATE TABLE given_order (
        order_id TEXT PRIMARY KEY,
        payload TEXT NOT NULL,
        origin TEXT NOT NULL,
        state TEXT NOT NULL,
        outcome TEXT NOT NULL,
        given_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "given_order" VALUES('o1','{}','mqtt','done','{}',1793491200,1793491200);
CREATE TABLE head_end_counter (
        client_sap INTEGER NOT NULL,
        key_fingerprint TEXT NOT NULL,
        system_title BLOB NOT NULL,
        kind TEXT NOT NULL,
        highest INTEGER NOT NULL,
        PRIMARY KEY (client_sap, key_fingerprint, system_title, kind)
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "head_end_counter" VALUES(1,'0011223344556677',X'4755580000000001','encryption',4711);
CREATE TABLE invocation_counter (
        name TEXT PRIMARY KEY,
        reserved INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "invocation_counter" VALUES('meter/ODC1',3000);
CREATE TABLE meter (
        meter_id INTEGER PRIMARY KEY,
        identity TEXT NOT NULL UNIQUE,
        medium TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        link TEXT NOT NULL,
        link_address TEXT NOT NULL,
        serial TEXT NOT NULL,
        logical_device_name TEXT NOT NULL,
        manufacturer TEXT NOT NULL,
        model TEXT NOT NULL,
        firmware TEXT NOT NULL,
        first_seen INTEGER,
        last_contact INTEGER,
        clock_offset_s REAL,
        signal REAL,
        details TEXT NOT NULL
    ) STRICT
    ;
INSERT INTO "meter" VALUES(1,'ODC1','electricity','active','','plc','aabb','123','ODC1','ODC','m','1.0',1793491200,1793492100,0.5,NULL,'{}');
INSERT INTO "meter" VALUES(2,'WTR2','water','active','','radio','WTR-2','22','','WTR','w','',1793491200,1793492100,NULL,-70.5,'{"note":"cellar"}');
CREATE TABLE meter_event (
        meter_event_id INTEGER PRIMARY KEY,
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        log TEXT NOT NULL,
        happened_at INTEGER NOT NULL,
        code INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        event_group TEXT NOT NULL,
        severity TEXT NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        UNIQUE (meter_id, log, happened_at, code, ordinal)
    ) STRICT
    ;
INSERT INTO "meter_event" VALUES(1,1,'0-0:99.98.1*255',1793491200,3,0,'fraud','alarm','tamper','',10);
CREATE TABLE meter_event_log (
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        log TEXT NOT NULL,
        read_up_to INTEGER,
        read_at INTEGER NOT NULL,
        state TEXT NOT NULL,
        PRIMARY KEY (meter_id, log)
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "meter_event_log" VALUES(1,'0-0:99.98.1*255',1793491200,1793491200,'');
CREATE TABLE meter_registration (
        meter_id INTEGER PRIMARY KEY REFERENCES meter (meter_id),
        installed_at INTEGER,
        removed_at INTEGER,
        manual INTEGER NOT NULL,
        groups TEXT NOT NULL,
        connection_limit INTEGER,
        replaced_by TEXT NOT NULL
    ) STRICT
    ;
INSERT INTO "meter_registration" VALUES(1,1793491200,NULL,0,'["east"]',NULL,'');
CREATE TABLE open_gap (
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        profile TEXT NOT NULL,
        first_at INTEGER NOT NULL,
        last_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        tries INTEGER NOT NULL,
        next_try_at INTEGER NOT NULL,
        PRIMARY KEY (meter_id, profile, first_at)
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "open_gap" VALUES(1,'1-0:99.1.0*255',1793500200,1793501100,'busy',1,1793501200);
CREATE TABLE parked_batch (
        destination_id INTEGER NOT NULL REFERENCES destination (destination_id),
        sequence INTEGER NOT NULL,
        parked_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (destination_id, sequence)
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "parked_batch" VALUES(1,5,1793500200,'the broker refused it: Packet too large');
CREATE TABLE reading (
        channel_id INTEGER NOT NULL,
        captured_at INTEGER NOT NULL,
        value ANY NOT NULL,
        status INTEGER,
        quality INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        PRIMARY KEY (channel_id, captured_at)
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "reading" VALUES(1,1793492100,1001,0,0,1);
INSERT INTO "reading" VALUES(1,1793493000,1002,0,0,2);
INSERT INTO "reading" VALUES(1,1793493900,1003,0,0,3);
INSERT INTO "reading" VALUES(1,1793494800,1004,0,0,4);
INSERT INTO "reading" VALUES(1,1793495700,1005,0,0,5);
INSERT INTO "reading" VALUES(1,1793496600,1006,0,0,6);
INSERT INTO "reading" VALUES(1,1793497500,1007,0,0,7);
INSERT INTO "reading" VALUES(1,1793498400,1008,0,0,8);
INSERT INTO "reading" VALUES(2,1793492100,2001,0,0,1);
INSERT INTO "reading" VALUES(2,1793493000,2002,0,0,2);
INSERT INTO "reading" VALUES(2,1793493900,2003,0,0,3);
INSERT INTO "reading" VALUES(2,1793494800,2004,0,0,4);
INSERT INTO "reading" VALUES(2,1793495700,2005,0,0,5);
INSERT INTO "reading" VALUES(2,1793496600,2006,0,0,6);
INSERT INTO "reading" VALUES(2,1793497500,2007,0,0,7);
INSERT INTO "reading" VALUES(2,1793498400,2008,0,0,8);
INSERT INTO "reading" VALUES(3,1793491200,'18446744073709551615',NULL,1,9);
CREATE TABLE setting (
        name TEXT PRIMARY KEY,
        value ANY NOT NULL
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "setting" VALUES('boot_id','0011223344556677');
CREATE TABLE task (
        name TEXT PRIMARY KEY,
        definition TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "task" VALUES('t','{"name":"t"}');
CREATE TABLE task_run (
        task TEXT NOT NULL,
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        due_at INTEGER NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        finished_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (task, meter_id)
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "task_run" VALUES('load_profile',1,1793491200,'done',1,1793491205,'');
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE VIEW reading_in_full AS
    SELECT meter.identity AS meter, channel.profile, channel.obis, channel.unit, channel.scaler,
           reading.value, reading.status, reading.quality,
           strftime('%Y-%m-%dT%H:%M:%SZ', reading.captured_at, 'unixepoch') AS captured_at,
           strftime('%Y-%m-%dT%H:%M:%SZ', batch.received_at, 'unixepoch') AS received_at,
           reading.sequence
    FROM reading
    JOIN channel USING (channel_id)
    JOIN meter USING (meter_id)
    JOIN batch ON batch.sequence = reading.sequence;
CREATE INDEX audit_open ON audit (audit_id) WHERE state = 'begun';
CREATE INDEX audit_of_meter ON audit (meter, audit_id);
CREATE INDEX audit_of_order ON audit (order_id, audit_id);
CREATE INDEX meter_event_of_batch ON meter_event (sequence);
CREATE INDEX meter_event_by_kind ON meter_event (kind, happened_at);
CREATE UNIQUE INDEX firmware_meter_once ON firmware_meter (meter_id)
    WHERE state NOT IN ('done', 'failed', 'aborted')
    ;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('batch',10);
INSERT INTO "sqlite_sequence" VALUES('audit',1);
COMMIT;
