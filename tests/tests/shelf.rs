//! Real programs run in a host as on any other engine. Each image is run on the engine of the machine and in a host:
//! `docker exec` as root and as its user, its health check, logs, its own stop signal, a restart, its volume and owner,
//! `docker top`, `stats`, `cp`, `commit` and its published port. `cargo run -p dind-tests --bin shelf -- --all` does so with
//! all images of `tests/images`, and prints a table.

use dind_tests::{BuiltImage, shelf};

#[track_caller]
fn assert_no_cell_differs(name: &str) {
    let row = shelf::examine(name);
    let problems = row.problems();
    assert!(problems.is_empty(), "{}\n\n{}", problems.join("\n\n"), shelf::draw(&[row]));
}

#[test]
fn postgres_runs_in_a_host_as_on_the_machine() {
    assert_no_cell_differs("postgres");
}

#[test]
fn redis_runs_in_a_host_as_on_the_machine() {
    assert_no_cell_differs("redis");
}

#[test]
fn nginx_runs_in_a_host_as_on_the_machine() {
    assert_no_cell_differs("nginx");
}

#[test]
fn python_with_an_application_runs_in_a_host_as_on_the_machine() {
    assert_no_cell_differs("python");
}

/// An image on top of one of the shelf, as its documentation says how to extend it.
#[track_caller]
fn extended(name: &str, dockerfile: &str, files: &[(&str, &[u8])]) -> BuiltImage {
    shelf::require(name);
    BuiltImage::new(&format!("FROM {}\n{dockerfile}", shelf::local_name(name)), files)
}

#[test]
fn what_follows_the_image_is_an_option_of_its_program_or_a_command() {
    for (name, command, expected) in [
        ("postgres", &["--version"][..], "postgres (PostgreSQL) 17."),
        ("postgres", &["psql", "--version"], "psql (PostgreSQL) 17."),
        ("redis", &["--version"], "Redis server v="),
        ("redis", &["redis-cli", "--version"], "redis-cli "),
        ("nginx", &["-v"], "nginx version: nginx/"),
        ("nginx", &["id", "-un"], "root"),
        ("python", &["python", "-c", "print(6 * 7)"], "42"),
        ("python", &["pip", "--version"], "pip "),
    ] {
        shelf::require(name);
        let ended = shelf::run(&shelf::local_name(name), &[], command);
        let output = format!("{}{}", ended.stdout, ended.stderr);
        assert!(ended.code == Some(0) && output.starts_with(expected), "{ended}");
    }
}

/// Options with which the image of postgres does what it does before the server starts, and ends.
const MAKE_DATABASE: [&str; 4] = ["--user", "postgres", "--entrypoint", "initialize-database.sh"];

#[test]
fn postgres_makes_no_database_without_a_password() {
    shelf::require("postgres");
    shelf::run(&shelf::local_name("postgres"), &[], &[]).exits(1).says(&["POSTGRES_PASSWORD"]);
    // A file may bring it, as a secret does.
    let secret = ["-e", "POSTGRES_PASSWORD_FILE=/etc/hostname"];
    let output =
        shelf::run(&shelf::local_name("postgres"), &[&MAKE_DATABASE[..], &secret].concat(), &[]).ok();
    assert_eq!(output.lines().last(), Some("The database is made; the server starts."), "{output}");
}

#[test]
fn postgres_runs_scripts_once_its_database_is_made() {
    let files: [(&str, &[u8]); 3] = [
        ("1.sh", b"export WORDS=from-a-script\necho database=$POSTGRES_DB\n"),
        ("2.sh", b"psql --username $POSTGRES_USER --dbname \"$POSTGRES_DB\" --command \"select '$WORDS' as said\"\n"),
        ("3.sql", b"create table made (word text);\nselect count(*) as tables from pg_tables where tablename = 'made';\n"),
    ];
    let image = extended("postgres", "COPY 1.sh 2.sh 3.sql /docker-entrypoint-initdb.d/\n", &files);
    let variables =
        ["-e", "POSTGRES_PASSWORD=secret", "-e", "POSTGRES_USER=shop", "-e", "POSTGRES_DB=a shop"];
    let output = shelf::run(image.name(), &[&MAKE_DATABASE[..], &variables].concat(), &[]).ok();
    for line in ["database=a shop", " from-a-script", "CREATE TABLE", "      1"] {
        assert!(output.lines().any(|found| found == line), "no line {line:?} in\n{output}");
    }
}

#[test]
fn nginx_puts_variables_into_templates() {
    let template = b"server { listen ${PORT}; location / { return 200 \"$host\"; } }\n";
    let dockerfile = "COPY shop.conf.template /etc/nginx/templates/\n";
    let image = extended("nginx", dockerfile, &[("shop.conf.template", template)]);
    let output = shelf::run(image.name(), &["-e", "PORT=8081"], &["nginx", "-T"]).ok();
    assert!(output.contains("server { listen 8081; location / { return 200 \"$host\"; } }"), "{output}");
}
