//! An application of the kind that people run, sealed: a proxy, a web server and its worker, a database and a cache, each under its
//! own user, each with its own health check.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use dind_tests::shelf::local_name;
use dind_tests::{Baked, Baking, Host, docker, until, until_equal};

/// A file of the project that configures the proxy: its image puts the value of the variable in.
const SITE: &str = "server { listen 80; location / { proxy_pass http://${UPSTREAM}; } }\n";

fn compose() -> String {
    let [nginx, python, postgres, redis] = ["nginx", "python-app", "postgres", "redis"].map(local_name);
    format!(
        "
name: shop
services:
  proxy:
    image: {nginx}
    environment: {{UPSTREAM: 'web:8000'}}
    volumes: ['./site.template:/etc/nginx/templates/default.conf.template:ro']
    ports: ['80:80']
    depends_on: {{web: {{condition: service_healthy}}}}
    restart: always
  web:
    image: {python}
    command: [python, app.py, web]
    volumes: ['jobs:/data']
    depends_on: {{database: {{condition: service_healthy}}, cache: {{condition: service_healthy}}}}
    restart: always
  worker:
    image: {python}
    command: [python, app.py, worker]
    volumes: ['jobs:/data']
    healthcheck: {{disable: true}}
    restart: always
  database:
    image: {postgres}
    environment: {{POSTGRES_PASSWORD: secret, POSTGRES_DB: shop}}
    volumes: ['rows:/var/lib/postgresql/data']
    healthcheck: {{test: [CMD, pg_isready, --host, 127.0.0.1, --username, postgres], interval: 1s, retries: 60}}
    restart: always
  cache:
    image: {redis}
    command: [--appendonly, 'yes', --appendfsync, always]
    volumes: ['keys:/data']
    healthcheck: {{test: [CMD, redis-cli, ping], interval: 1s, retries: 60}}
    restart: always
volumes: {{jobs: {{}}, rows: {{}}, keys: {{}}}}
"
    )
}

/// The application where it runs, and how often each part of it has been used.
struct Shop {
    host: Host,
    used: usize,
}

impl Shop {
    /// What the proxy answers: the status line and the body.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &str) -> (String, String) {
        // It has no health check: that it runs does not say that it listens.
        let mut stream = until("the proxy to listen", 20, || TcpStream::connect((self.host.ip(), 80)).ok());
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.0\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }

    /// Runs a program in a service, as this user.
    #[track_caller]
    fn exec(&self, service: &str, user: &str, program: &[&str]) -> String {
        let container = format!("shop-{service}-1");
        let exec = ["exec", "-u", user, &container].into_iter().chain(program.iter().copied());
        self.host.docker(exec).ok()
    }

    /// Uses every part of it once more; what was acknowledged before is there.
    #[track_caller]
    fn use_it(&mut self) {
        self.used += 1;
        let used = self.used.to_string();
        let (status, body) = self.ask("POST", "/jobs", "words of a text that nobody has counted");
        assert!(status.contains("202"), "{status}\n{body}");
        for job in 1..=self.used {
            until_equal(&format!("job {job} to be done"), 30, true, || {
                self.ask("GET", &format!("/jobs/{job}"), "").1.contains("\"words\": 8")
            });
        }
        let sql = "CREATE TABLE IF NOT EXISTS sold (id serial PRIMARY KEY); INSERT INTO sold DEFAULT VALUES; SELECT max(id), count(*) FROM sold";
        let psql = ["psql", "-qAt", "-U", "postgres", "-d", "shop", "-c", sql];
        let (highest, count) = self
            .exec("database", "postgres", &psql)
            .split_once('|')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        assert_eq!(count, used);
        // A sequence may skip numbers after a crash; rows may not be missing.
        assert!(highest.parse::<usize>().unwrap() >= self.used);
        assert_eq!(self.exec("cache", "redis", &["redis-cli", "incr", "visits"]), used);
    }

    /// Asserts that no part runs as another user, and that no file has another owner, than its image says.
    #[track_caller]
    fn assert_users(&self) {
        for (service, user, owned) in [
            ("web", "1000", "/data"),
            ("worker", "1000", "/data"),
            ("database", "999", "/var/lib/postgresql/data"),
            ("cache", "999", "/data"),
        ] {
            let line = format!("stat -c %u /proc/1; find {owned} -printf '%U\\n' | sort -u");
            assert_eq!(
                self.exec(service, "root", &["sh", "-c", &line]),
                format!("{user}\n{user}"),
                "{service}"
            );
        }
    }
}

fn bake() -> (Baking, Baked) {
    let baking = Baking::new();
    baking.write("docker-compose.yml", compose());
    baking.write("site.template", SITE);
    let baked = baking.bake(&[]);
    (baking, baked)
}

#[test]
fn a_sealed_application_of_real_programs_keeps_what_it_acknowledged() {
    let (_baking, baked) = bake();
    let mut shop = Shop { host: baked.options().start(), used: 0 };
    let status = shop.host.status()["application"]["containers"].to_string();
    assert_eq!(status.matches("\"health\":\"healthy\"").count(), 3, "{status}");
    shop.use_it();
    shop.assert_users();

    shop.host.stop();
    shop.host.assert_exited(0);
    assert_eq!(shop.host.alarms(), []);
    // Each part ended by its own signal and wrote its last words.
    for (service, words) in [
        ("proxy-1", "gracefully shutting down"),
        ("web-1", "web: stopped"),
        ("worker-1", "worker: stopped"),
        ("database-1", "database system is shut down"),
        ("cache-1", "User requested shutdown"),
    ] {
        let said = shop.host.lines_of(service);
        assert!(said.iter().any(|line| line.contains(words)), "{service} did not say {words:?}: {said:?}");
    }
    shop.host.start();
    shop.use_it();

    docker(["kill", shop.host.name()]).ok();
    shop.host.start();
    shop.use_it();
    shop.assert_users();
    shop.host.stop();
    shop.host.assert_exited(0);
}
