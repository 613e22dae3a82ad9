//! Proxies. dockerd pulls through those in its environment by itself. Containers and builds inside hear of them from the
//! docker command, which passes on what its configuration file says.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::ground::decision::Decision;
use crate::settings::Settings;

/// Variables, and what the docker command calls them.
const PROXIES: [([&str; 2], &str); 3] = [
    (["HTTP_PROXY", "http_proxy"], "httpProxy"),
    (["HTTPS_PROXY", "https_proxy"], "httpsProxy"),
    (["NO_PROXY", "no_proxy"], "noProxy"),
];

/// Tells the docker command inside the host of the proxies, unless somebody has told it already. `None`: there are none.
/// What they are is not logged: it may hold a password.
pub(in crate::ground) fn pass_on(settings: &Settings) -> Option<Decision> {
    let mut names = Vec::new();
    let mut proxies = Map::new();
    for (variables, key) in PROXIES {
        let set = variables.iter().find_map(|name| Some((*name, settings.environment.get(*name)?.to_str()?)));
        if let Some((name, value)) = set {
            names.push(name);
            proxies.insert(key.to_owned(), Value::from(value));
        }
    }
    if names.is_empty() {
        return None;
    }
    let home = settings.environment.get("HOME").map_or(Path::new("/root"), Path::new);
    let file = home.join(".docker/config.json");
    let decision =
        |chosen| Decision::good("proxies", format!("{} in the environment", names.join(", ")), chosen);
    Some(match tell(&file, &proxies) {
        Ok(true) => decision(format!("dockerd and, by {}, what runs and is built inside", file.display()))
            .because("the docker command passes on what its configuration file says"),
        Ok(false) => decision("dockerd".to_owned())
            .because(format!("{} says which proxies containers and builds get", file.display())),
        Err(e) => decision("dockerd alone".to_owned())
            .because(format!("{} cannot be changed: {e}", file.display()))
            .but_better(format!(
                "write \"proxies\" into {} yourself, or make it writable JSON",
                file.display()
            )),
    })
}

/// Adds the proxies to the file; whether it did, and had not to leave alone what stands there.
fn tell(file: &Path, proxies: &Map<String, Value>) -> io::Result<bool> {
    let mut config = match crate::read_if_there(file)? {
        Some(text) => serde_json::from_str::<Map<String, Value>>(&text)?,
        None => Map::new(),
    };
    if config.contains_key("proxies") {
        return Ok(false);
    }
    config.insert("proxies".to_owned(), json!({ "default": proxies }));
    let folder = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let new = folder.join(".config.json.new");
    // It may be of a host that was killed here, with wider permissions.
    let _ = fs::remove_file(&new);
    let mut open = fs::OpenOptions::new();
    let mut written = open.write(true).create_new(true).mode(0o600).open(&new)?;
    io::Write::write_all(&mut written, serde_json::to_string_pretty(&config)?.as_bytes())?;
    fs::rename(&new, file).inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use dind_contract::Verdict;

    use super::*;

    fn pass_on_in(home: &Path) -> Option<Decision> {
        let environment = [
            ("HOME".into(), home.into()),
            ("HTTP_PROXY".into(), "http://me:secret@proxy.example:3128".into()),
            ("no_proxy".into(), "localhost".into()),
        ];
        pass_on(&Settings::load(environment, &[], |_| Ok(None)).unwrap())
    }

    #[test]
    fn the_docker_command_is_told_once() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".docker/config.json");
        let decision = pass_on_in(home.path()).unwrap();
        assert_eq!(decision.finding.verdict, Verdict::Good);
        assert!(!format!("{decision:?}").contains("secret"), "{decision:?}");
        let read = || serde_json::from_str::<Value>(&fs::read_to_string(&file).unwrap()).unwrap();
        let expected = json!({"httpProxy": "http://me:secret@proxy.example:3128", "noProxy": "localhost"});
        assert_eq!(read()["proxies"]["default"], expected);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // What somebody wrote there stays, whole.
        fs::write(&file, r#"{"auths": {"x": {}}}"#).unwrap();
        pass_on_in(home.path()).unwrap();
        assert_eq!(read()["auths"], json!({"x": {}}));
        assert_eq!(read()["proxies"]["default"], expected);
        fs::write(&file, r#"{"proxies": {}}"#).unwrap();
        pass_on_in(home.path()).unwrap();
        assert_eq!(read(), json!({"proxies": {}}));
        fs::write(&file, "not JSON").unwrap();
        assert_eq!(pass_on_in(home.path()).unwrap().finding.verdict, Verdict::Fallback);
        assert_eq!(fs::read_to_string(&file).unwrap(), "not JSON");
    }

    #[test]
    fn without_a_proxy_nothing_is_written() {
        let home = tempfile::tempdir().unwrap();
        let environment = [("HOME".into(), home.path().into())];
        assert_eq!(pass_on(&Settings::load(environment, &[], |_| Ok(None)).unwrap()), None);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
