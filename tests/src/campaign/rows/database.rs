//! The databases: how each is run, asked and checked, in a container of its own inside the engine.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::super::engine::{Engine, expect};
use crate::shelf;

/// The database's container.
const CONTAINER: &str = "database";
/// The volume of its data.
const VOLUME: &str = "rows";
/// How many seconds it has to be made, or to come back: dockerd gives containers that it finds running ten to end.
const READY: u64 = 90;
/// Every row belongs to a writer, which the second index knows it by.
const TABLE: &str = "
CREATE TABLE entries (id BIGINT PRIMARY KEY, writer INT NOT NULL, content TEXT NOT NULL);
CREATE INDEX by_writer ON entries (writer);
";

/// Which database commits rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// PostgreSQL: `tests/images/postgres`.
    Postgres,
    /// MariaDB: `tests/images/mariadb`.
    Mariadb,
}

/// A row as the database has it: its id and the checksum of its writer and content.
pub(super) type Stored = (u64, String);

/// How many rows there are, and the sum of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    rows: usize,
    sum: u64,
}

/// What is in the database.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// The rows, from the table itself.
    pub(super) rows: Vec<Stored>,
    /// What each index says that there is, by its name.
    indexes: Vec<(String, Count)>,
}

impl Content {
    /// Reads the lines of [`Database::read`].
    fn parse(lines: &str) -> Result<Self> {
        let mut content = Self { rows: Vec::new(), indexes: Vec::new() };
        for line in lines.lines() {
            match line.split('\t').collect::<Vec<_>>()[..] {
                [id, checksum] => content.rows.push((id.parse()?, checksum.to_owned())),
                [index, rows, sum] => {
                    let count = Count { rows: rows.parse()?, sum: sum.parse()? };
                    content.indexes.push((index.to_owned(), count));
                }
                _ => bail!("neither a row nor a count: {line:?}"),
            }
        }
        Ok(content)
    }

    /// What the table and an index do not agree on.
    pub(super) fn disagreement(&self) -> Option<String> {
        let table = Count { rows: self.rows.len(), sum: self.rows.iter().map(|(id, _)| id).sum() };
        let other = self.indexes.iter().find(|(_, count)| *count != table);
        other.map(|(index, count)| format!("the table has {table:?}, and {index} {count:?}"))
    }
}

impl Database {
    /// Its name, which is that of its image.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mariadb => "mariadb",
        }
    }

    /// Who it is in its container: the entrypoint leaves root.
    fn user(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mariadb => "mysql",
        }
    }

    /// Brings the image into an engine and starts the database: an empty table. `durable` is the default: a commit is answered
    /// when it is on the disk.
    pub(super) fn begin(self, engine: &Engine, durable: bool) -> Result<()> {
        let archive = shelf::archive(self.name());
        expect(engine.exec(&["-i"], &["docker", "load", "--quiet"]).stdin_file(archive))?;
        let image = shelf::local_name(self.name());
        let (folder, environment): (_, &[&str]) = match self {
            // With checksums a page that was written in part is seen when it is read.
            Self::Postgres => (
                "/var/lib/postgresql/data",
                &["POSTGRES_PASSWORD=secret", "POSTGRES_INITDB_ARGS=--data-checksums"],
            ),
            Self::Mariadb => (
                "/var/lib/mysql",
                &["MARIADB_ROOT_PASSWORD=secret", "MARIADB_DATABASE=rows", "MARIADB_INITDB_SKIP_TZINFO=1"],
            ),
        };
        let options: &[&str] = match (self, durable) {
            (_, true) => &[],
            (Self::Postgres, false) => &["-c", "synchronous_commit=off"],
            (Self::Mariadb, false) => &["--innodb-flush-log-at-trx-commit=2"],
        };
        let mount = format!("{VOLUME}:{folder}");
        let mut run = vec!["run", "-d", "--name", CONTAINER, "--restart", "always", "-v", &mount];
        run.extend(environment.iter().flat_map(|variable| ["-e", variable]));
        run.push(&image);
        run.extend(options);
        engine.ask(&run)?;
        self.wait(engine, None)?;
        self.query(engine, TABLE).map(drop)
    }

    /// When its container was last started, as the engine has it.
    pub(super) fn started(self, engine: &Engine) -> Result<String> {
        engine.ask(&["inspect", "--format", "{{.State.StartedAt}}", CONTAINER])
    }

    /// Waits until it answers, in a container that was started at another time than `before`; how long that took.
    ///
    /// # Errors
    /// When it does not, with its last lines.
    pub(super) fn wait(self, engine: &Engine, before: Option<&str>) -> Result<Duration> {
        let begin = Instant::now();
        loop {
            let trouble = match self.answers(engine, before) {
                Ok(()) => return Ok(begin.elapsed()),
                Err(error) => error,
            };
            if begin.elapsed() > Duration::from_secs(READY) {
                let logs = engine.docker(&["logs", "--tail", "30", CONTAINER])?;
                let words = logs.stdout + &logs.stderr;
                bail!("{} is not ready after {READY} s: {trouble:#}\n{words}", self.name());
            }
            sleep(Duration::from_millis(50));
        }
    }

    fn answers(self, engine: &Engine, before: Option<&str>) -> Result<()> {
        if let Some(before) = before {
            ensure!(self.started(engine)? != before, "its container was not started again");
        }
        // Over TCP: while the database is made, the server listens on its socket alone.
        let command: &[&str] = match self {
            Self::Postgres => &["pg_isready", "--host", "127.0.0.1"],
            Self::Mariadb => {
                &["mariadb-admin", "--host=127.0.0.1", "--user=root", "--password=secret", "ping"]
            }
        };
        engine.ask(&[&["exec", "-u", self.user(), CONTAINER], command].concat()).map(drop)
    }

    /// What to `docker exec -i` in an engine for a client that reads SQL and prints bare rows, each as soon as its statement is
    /// done.
    pub(super) fn client(self) -> Vec<&'static str> {
        let exec = ["docker", "exec", "-i", "-u", self.user(), CONTAINER];
        let client: &[&str] = match self {
            Self::Postgres => {
                &["psql", "-qAtX", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "postgres"]
            }
            Self::Mariadb => &[
                "mariadb",
                "--batch",
                "--skip-column-names",
                "--skip-reconnect",
                "--unbuffered",
                "--user=root",
                "--password=secret",
                "rows",
            ],
        };
        exec.iter().chain(client).copied().collect()
    }

    /// Runs SQL; what it prints.
    pub(super) fn query(self, engine: &Engine, sql: &str) -> Result<String> {
        expect(engine.exec(&["-i"], &self.client()).stdin(sql))
    }

    /// Every row, and what each index says that there is, all at one moment.
    pub(super) fn read(self, engine: &Engine) -> Result<Content> {
        let sql = match self {
            // Rows from the table itself, in which no index plays a part.
            Self::Postgres => {
                "BEGIN ISOLATION LEVEL REPEATABLE READ;
                SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off;
                SET LOCAL enable_bitmapscan = off;
                SELECT id, encode(sha256(convert_to(writer || ' ' || content, 'UTF8')), 'hex') FROM entries;
                SET LOCAL enable_indexscan = on; SET LOCAL enable_indexonlyscan = on; SET LOCAL enable_seqscan = off;
                SELECT 'the primary key', count(*), coalesce(sum(id), 0) FROM entries WHERE id >= 0;
                SELECT 'by_writer', count(*), coalesce(sum(id), 0) FROM entries WHERE writer >= 0;
                COMMIT;"
            }
            // Its primary key is the table.
            Self::Mariadb => {
                "START TRANSACTION WITH CONSISTENT SNAPSHOT;
                SELECT id, SHA2(CONCAT(writer, ' ', content), 256) FROM entries FORCE INDEX (PRIMARY);
                SELECT 'by_writer', count(*), coalesce(sum(id), 0) FROM entries FORCE INDEX (by_writer)
                    WHERE writer >= 0;
                COMMIT;"
            }
        };
        Content::parse(&self.query(engine, sql)?)
    }

    /// What the database's own check finds wrong: of every table and index, each entry of an index looked up.
    pub(super) fn check(self, engine: &Engine) -> Result<Option<String>> {
        match self {
            Self::Postgres => {
                let exec = ["exec", "-u", self.user(), CONTAINER];
                let check = [
                    "pg_amcheck",
                    "--install-missing",
                    "--heapallindexed",
                    "--rootdescend",
                    "-U",
                    "postgres",
                ];
                let ended = engine.docker(&[&exec[..], &check, &["postgres"]].concat())?;
                Ok((ended.code != Some(0)).then(|| ended.to_string()))
            }
            Self::Mariadb => {
                let checked = self.query(engine, "CHECK TABLE entries EXTENDED;")?;
                Ok((checked != "rows.entries\tcheck\tstatus\tOK").then_some(checked))
            }
        }
    }

    /// Who owns its data, and with which mode, as the engine's machine sees it; it has to be the user in the container.
    pub(super) fn owner(self, engine: &Engine) -> Result<String> {
        let folder = engine.ask(&["volume", "inspect", "--format", "{{.Mountpoint}}", VOLUME])?;
        let owner = expect(engine.exec(&[], &["stat", "--format", "%u:%g with mode %a", &folder]))?;
        let id = engine.ask(&["exec", CONTAINER, "id", "-u", self.user()])?;
        ensure!(id != "0", "the user {} is root", self.user());
        ensure!(
            owner.starts_with(&format!("{id}:")),
            "{folder} belongs to {owner}, and {} is {id}",
            self.user()
        );
        Ok(owner)
    }

    /// Kills the database's own process, or one of those that it has forked.
    pub(super) fn kill(self, engine: &Engine, child: bool) -> Result<()> {
        let pid = engine.ask(&["inspect", "--format", "{{.State.Pid}}", CONTAINER])?;
        let script = if child {
            // One that was chosen may have ended by itself.
            format!("until kill -9 $(pgrep -P {pid} | shuf -n 1); do :; done")
        } else {
            format!("kill -9 {pid}")
        };
        expect(engine.exec(&[], &["sh", "-c", &script])).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_and_its_indexes_have_to_agree() {
        let lines = |index: &str| format!("3\tab01\n4\tcd02\n{index}\nby_writer\t2\t7");
        let content = Content::parse(&lines("the primary key\t2\t7")).unwrap();
        assert_eq!(content.rows, [(3, "ab01".into()), (4, "cd02".into())]);
        assert_eq!(content.disagreement(), None);
        for index in ["the primary key\t1\t7", "the primary key\t2\t8"] {
            let found = Content::parse(&lines(index)).unwrap().disagreement().unwrap();
            assert!(found.contains("the primary key"), "{found}");
        }
        assert!(Content::parse("ERROR").is_err());
    }
}
