"""Write tests/support/stores/schema_N.sql: a store as a release with schema N left it, with rows in every table.

Run once for a new schema, when it is released; the files of older ones stay as they are:
`.venv/bin/python tests/tools/old_stores.py 8`.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

from sqlite_utils import Database

from concentrator.store.migrations import SCHEMA_VERSION, migrations

FOLDER = Path(__file__).parents[1] / "support" / "stores"
T = 1_793_491_200
DAY = T // 86_400 * 86_400
LOAD, WATER, LOG = "'1-0:99.1.0*255'", "'0-0:24.3.0*255'", "'0-0:99.98.1*255'"

# What was stored after the migration to each schema.
ROWS = {
    1: [
        "INSERT INTO meter VALUES"
        f" (1,'ODC1','electricity','active','','plc','aabb','123','ODC1','ODC','m','1.0',{T},{T + 900},0.5,NULL,'{{}}'),"
        f" (2,'WTR2','water','active','','radio','WTR-2','22','','WTR','w','',{T},{T + 900},NULL,-70.5,"
        ' \'{"note":"cellar"}\')',
        f"INSERT INTO channel VALUES (1,1,{LOAD},'1-0:1.8.0*255',3,2,30,0,900),"
        f" (2,1,{LOAD},'1-0:2.8.0*255',3,2,30,0,900), (3,2,{WATER},'8-0:1.0.0*255',3,2,13,-3,0)",
        "INSERT INTO batch (sequence,meter_id,profile,first_at,last_at,reading_count,received_at) VALUES "
        + ",".join(f"({n},1,{LOAD},{T + 900 * n},{T + 900 * n},2,{T + 900 * n + 60})" for n in range(1, 9))
        + f",(9,2,{WATER},{T},{T},1,{T + 5})",
        "INSERT INTO reading VALUES "
        + ",".join(f"({c},{T + 900 * n},{1000 * c + n},0,0,{n})" for c in (1, 2) for n in range(1, 9))
        + f",(3,{T},'18446744073709551615',NULL,1,9)",
        f"INSERT INTO destination VALUES (1,'mqtt',2,{T + 9000}), (2,'push',0,NULL)",
        "INSERT INTO acknowledgement VALUES (1,4),(1,5),(1,7),(2,9)",
        f"INSERT INTO closed_gap VALUES (1,{LOAD},{T - 9000},{T - 900},'lost',{T})",
        "INSERT INTO invocation_counter VALUES ('meter/ODC1',3000)",
        f"INSERT INTO event VALUES (1,{T},1,'value_differs','had 1, meter now says 2')",
        "INSERT INTO setting VALUES ('boot_id','0011223344556677')",
    ],
    2: [
        "INSERT INTO network_node VALUES ('aabb','{\"available\":true}')",
        f"INSERT INTO network_change VALUES (4,'aabb',{T}.5,'joined','came')",
        f"INSERT INTO network_hour VALUES ({T},1.5,2,1,2,60.0)",
        f"INSERT INTO network_node_day VALUES ('aabb',{DAY},1400.0,2,1440.0)",
        "INSERT INTO setting VALUES ('network_history','{\"now\":1.0}')",
    ],
    3: [
        f"INSERT INTO open_gap VALUES (1,{LOAD},{T + 9000},{T + 9900},'busy',1,{T + 10_000})",
        f"INSERT INTO task_run VALUES ('load_profile',1,{T},'done',1,{T + 5},'')",
        "INSERT INTO task VALUES ('t','{\"name\":\"t\"}')",
        f"INSERT INTO given_order VALUES ('o1','{{}}','mqtt','done','{{}}',{T},{T})",
        "UPDATE batch SET handling = 1 WHERE sequence = 6",
    ],
    4: [f"INSERT INTO audit VALUES (1,'o1','disconnect','ODC1','local','{{}}',{T},{T + 1},'done','{{}}','{{}}','')"],
    5: [f"INSERT INTO meter_registration VALUES (1,{T},NULL,0,'[\"east\"]',NULL,'')"],
    6: [
        "INSERT INTO batch (sequence,meter_id,profile,first_at,last_at,reading_count,received_at,handling)"
        f" VALUES (10,1,{LOG},{T},{T},1,{T},0)",
        f"INSERT INTO meter_event VALUES (1,1,{LOG},{T},3,0,'fraud','alarm','tamper','',10)",
        f"INSERT INTO meter_event_log VALUES (1,{LOG},{T},{T},'')",
    ],
    7: [
        f"INSERT INTO kpi_day VALUES ({DAY},'{{\"busy_s\":5.0}}')",
        f"INSERT INTO kpi_meter_day VALUES ({DAY},1,96,95,1,90,95,95,4,3,3,1,12.5)",
    ],
    # Statistics left for a file of their own when schema 8 was opened.
    8: [
        *(
            f"DROP TABLE {table}"
            for table in (
                "network_node", "network_change", "network_hour", "network_node_day", "kpi_day", "kpi_meter_day",
            )
        ),
        "DELETE FROM setting WHERE name = 'network_history'",
    ],
    9: [f"INSERT INTO parked_batch VALUES (1,5,{T + 9000},'the broker refused it: Packet too large')"],
    10: ["INSERT INTO head_end_counter VALUES (1,'0011223344556677',x'4755580000000001','encryption',4711)"],
    11: [
        f"INSERT INTO firmware_campaign VALUES ('spring','{{}}','paused','by somebody',{T},{T + 60},1)",
        f"INSERT INTO firmware_meter VALUES ('spring',1,'transferring',40,100,128,2,{T + 900},0,{T + 60},'1.0','no answer')",
    ],
}  # fmt: skip


def dump(version: int) -> str:
    """A store of a schema as SQL text."""
    steps = [step.name for step in migrations.pending(Database(memory=True))]
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    for number in range(1, version + 1):
        migrations.apply(Database(connection), stop_before=steps[number : number + 1])
        for statement in ROWS[number]:
            connection.execute(statement)
    connection.execute("UPDATE _sqlite_migrations SET applied_at = '2026-11-01 00:00:00.000000+00:00'")
    pragmas = [
        f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};"
        for name in ("auto_vacuum", "application_id", "user_version")
    ]
    return "\n".join([*pragmas, *connection.iterdump()]) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for asked in map(int, sys.argv[1:] or range(1, SCHEMA_VERSION + 1)):
        (FOLDER / f"schema_{asked}.sql").write_text(dump(asked))
