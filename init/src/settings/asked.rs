//! Whether somebody who gives a command wants a dind host for it.

use dind_contract::variables;

use super::nearly;

/// The first of these names of variables that asks for a dind host: a setting that only such a host has, or what is nearly one.
/// Names that are anybody's (`LOCAL`) or that clients of `docker:dind` are given, too (`DOCKER_TLS_CERTDIR`), ask for nothing.
pub(crate) fn asks_for_host(names: impl IntoIterator<Item = String>) -> Option<String> {
    names.into_iter().find(|name| {
        if [variables::COMPOSE_SCRIPT, variables::DOCKER_OPTS].contains(&name.as_str()) {
            return true;
        }
        name.to_ascii_uppercase().starts_with("DIND_")
            && (variables::ALL.iter().any(|variable| variable.name == name)
                || !variables::is_injected_by_kubernetes(name) && nearly(name).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_hosts_alone_ask_for_one() {
        let asks = |name: &str| asks_for_host([name.to_owned()]).is_some();
        let shared = [variables::LOCAL, variables::DOCKER_TLS_CERTDIR, variables::DOCKER_TLS_SAN];
        for variable in variables::ALL {
            assert_eq!(asks(variable.name), !shared.contains(&variable.name), "{}", variable.name);
        }
        for name in ["DIND_STORGE", "DIND_TLS_SANS", "DIND_LOCAL", "dind_storage"] {
            assert!(asks(name), "{name}");
        }
        for name in ["DIND_VERSION", "DIND_SERVICE_HOST", "DIND_PORT", "DOCKER_HOST", "DOCKER_DRIVER", "CI"] {
            assert!(!asks(name), "{name}");
        }
    }
}
