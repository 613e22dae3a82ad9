//! The image of a host: whether the endpoint has it, and getting it.

use bollard::auth::DockerCredentials;
use bollard::query_parameters::CreateImageOptionsBuilder;
use docker_credential::DockerCredential;
use futures_util::StreamExt;

use crate::endpoint::{self, Endpoint};
use crate::failure::{Failure, Result};
use crate::options::Pull;
use crate::progress::Progress;

/// Makes sure that the endpoint has the image; `build_line` makes it, if it is one of ours.
///
/// # Errors
/// It is not there, and cannot be fetched.
pub(crate) async fn ensure(
    endpoint: &Endpoint,
    image: &str,
    pull: Pull,
    build_line: &str,
    progress: &Progress,
) -> Result<()> {
    let there = if pull == Pull::Always { false } else { has(endpoint, image).await? };
    if there {
        return Ok(());
    }
    let missing = |cause: &str| {
        Failure::new(
            format!("there is no image {image} on {}{cause}", endpoint.address),
            format!("{build_line}; or name another one: --image IMAGE"),
        )
    };
    if pull == Pull::Never {
        return Err(missing(""));
    }
    progress.begin(&format!("pulling {image}"), &format!("{image} is pulled"));
    fetch(endpoint, image, progress)
        .await
        .map_err(|cause| missing(&format!(", and it cannot be pulled: {cause}")))?;
    progress.end();
    Ok(())
}

/// Whether the endpoint has an image.
///
/// # Errors
/// The endpoint does not answer.
pub(crate) async fn has(endpoint: &Endpoint, image: &str) -> Result<bool> {
    match endpoint.docker.inspect_image(image).await {
        Ok(_) => Ok(true),
        Err(error) if endpoint::status(&error) == Some(404) => Ok(false),
        Err(error) => Err(Failure::new(
            format!("the endpoint cannot say whether it has the image {image}: {}", endpoint::cause(&error)),
            "look whether that is a name of an image: NAME[:TAG]",
        )),
    }
}

/// Pulls an image, with the credentials that the docker command has for its registry.
///
/// # Errors
/// The cause, in the registry's or the engine's words.
pub(crate) async fn fetch(endpoint: &Endpoint, image: &str, progress: &Progress) -> Result<(), String> {
    fetch_for(endpoint, image, None, progress).await
}

/// The same for a platform, such as `linux/arm64`, where it is not the engine's own.
///
/// # Errors
/// As [`fetch`].
pub(crate) async fn fetch_for(
    endpoint: &Endpoint,
    image: &str,
    platform: Option<&str>,
    progress: &Progress,
) -> Result<(), String> {
    // Without a tag the engine would pull all of them.
    let name = image.rsplit('/').next().unwrap_or(image);
    let tagged = name.contains(':') || name.contains('@');
    let options = CreateImageOptionsBuilder::new().from_image(image);
    let options = if tagged { options } else { options.tag("latest") };
    let options = platform.into_iter().fold(options, |options, platform| options.platform(platform));
    let mut pieces = endpoint.docker.create_image(Some(options.build()), None, credentials(image));
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| endpoint::cause(&error))?;
        if let Some(error) = piece.error_detail.and_then(|detail| detail.message) {
            return Err(error);
        }
        let status = piece.status.unwrap_or_default();
        let layer = piece.id.map_or_else(String::new, |id| format!("{id}: "));
        let amount = piece.progress_detail.and_then(|detail| {
            let (current, total) = (detail.current?, detail.total?);
            (total > 0).then(|| format!(" {} of {}", size(current), size(total)))
        });
        progress.detail(&format!("{layer}{status}{}", amount.unwrap_or_default()));
    }
    Ok(())
}

fn size(bytes: i64) -> indicatif::HumanBytes {
    indicatif::HumanBytes(u64::try_from(bytes).unwrap_or(0))
}

/// What the docker command's configuration, or its credential store, has for the registry of an image.
fn credentials(image: &str) -> Option<DockerCredentials> {
    let registry = registry(image);
    let server = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    match docker_credential::get_credential(server).ok()? {
        DockerCredential::UsernamePassword(username, password) => Some(DockerCredentials {
            username: Some(username),
            password: Some(password),
            serveraddress: Some(server.to_owned()),
            ..Default::default()
        }),
        DockerCredential::IdentityToken(token) => Some(DockerCredentials {
            identitytoken: Some(token),
            serveraddress: Some(server.to_owned()),
            ..Default::default()
        }),
    }
}

/// The registry that a name of an image means, by the rule of the distribution project's reference package: the part before the
/// first slash, if it looks like a machine's name.
pub(crate) fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains('.') || first.contains(':') || first == "localhost" => first,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_of_a_name() {
        for (image, expected) in [
            ("debian", "docker.io"),
            ("library/debian:12", "docker.io"),
            ("localhost/a", "localhost"),
            ("registry.example.com/a/b:1", "registry.example.com"),
            ("a:5000/b", "a:5000"),
        ] {
            assert_eq!(registry(image), expected, "{image}");
        }
    }
}
