//! `dind inspect`: what a host or an image is, and what is sealed in it.

use std::collections::HashMap;

use clap::Args;
use dind_contract::{labels, store};
use serde_json::{Value, json};

use crate::endpoint::{self, Endpoint, ImageId};
use crate::failure::{Failure, Result};
use crate::table::table;
use crate::{Context, output};

/// Say what an image or a host is made of: flavour, engine, and of a sealed appliance its images with their digests
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Images and hosts
    #[arg(required = true, value_name = "NAME")]
    pub(crate) name: Vec<String>,
    /// As JSON: a list
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is known of one.
struct Found {
    name: String,
    /// Of the image.
    id: ImageId,
    labels: HashMap<String, String>,
    /// In bytes.
    size: i64,
}

/// Does it.
pub(crate) async fn run(context: &Context, inspect: Inspect) -> Result<()> {
    let endpoint = context.connect().await?;
    let mut all = Vec::new();
    for name in &inspect.name {
        all.push(find(&endpoint, name).await?);
    }
    if inspect.json {
        let all: Vec<Value> = all.iter().map(Found::document).collect::<Result<_>>()?;
        return output::print(&format!("{:#}\n", Value::from(all)));
    }
    let texts: Vec<String> = all.iter().map(Found::text).collect::<Result<_>>()?;
    output::print(&texts.join("\n"))
}

/// A host of this name, or else an image.
async fn find(endpoint: &Endpoint, name: &str) -> Result<Found> {
    let asked = |error: &bollard::errors::Error| {
        Failure::new(
            format!("the endpoint cannot say what {name} is: {}", endpoint::cause(error)),
            "look whether that is a name of an image or a host",
        )
    };
    let image = match endpoint.docker.inspect_container(name, None).await {
        Ok(container) => {
            endpoint.container_id(container.id.as_ref())?;
            endpoint.parse::<ImageId>(&container.image.unwrap_or_default())?.to_string()
        }
        Err(error) if endpoint::status(&error) == Some(404) => name.to_owned(),
        Err(error) => return Err(asked(&error)),
    };
    let found = match endpoint.docker.inspect_image(&image).await {
        Ok(found) => found,
        Err(error) if endpoint::status(&error) == Some(404) => {
            return Err(Failure::new(
                format!("there is no image and no host {name} on {}", endpoint.address),
                "see which there are: docker image ls, dind ls -a",
            ));
        }
        Err(error) => return Err(asked(&error)),
    };
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    if !labels.contains_key(labels::FLAVOUR) {
        return Err(Failure::new(
            format!("{name} is no image of a host: it has no label {}", labels::FLAVOUR),
            "other images are the docker command's: docker inspect",
        ));
    }
    Ok(Found {
        name: name.to_owned(),
        id: endpoint.parse(&found.id.unwrap_or_default())?,
        labels,
        size: found.size.unwrap_or_default(),
    })
}

impl Found {
    fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The images that are sealed in; `None`: it is no sealed appliance.
    fn sealed(&self) -> Result<Option<Vec<store::Image>>> {
        let Some(text) = self.labels.get(labels::SEALED) else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|e| {
            Failure::new(
                format!("the label {} of {} cannot be understood: {e}", labels::SEALED, self.name),
                "use the dind that baked it",
            )
        })
    }

    fn document(&self) -> Result<Value> {
        Ok(json!({
            "name": self.name,
            "id": self.id.as_str(),
            "size": self.size,
            "version": self.label("org.opencontainers.image.version"),
            "flavour": self.label(labels::FLAVOUR),
            "engine": self.label(labels::ENGINE),
            "store": self.labels.get(labels::STORE),
            "images": self.sealed()?,
        }))
    }

    fn text(&self) -> Result<String> {
        let size = indicatif::HumanBytes(u64::try_from(self.size).unwrap_or_default());
        let mut text = format!("{}\n", self.name);
        let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<10} {value}\n"));
        line("image", self.id.as_str());
        line("size", &size.to_string());
        line("version", self.label("org.opencontainers.image.version"));
        line("flavour", self.label(labels::FLAVOUR));
        line("engine", self.label(labels::ENGINE));
        let Some(images) = self.sealed()? else {
            line("sealed", "nothing");
            return Ok(text);
        };
        line("store", self.label(labels::STORE));
        let rows: Vec<Vec<String>> = images
            .iter()
            .map(|image| {
                let digest = image.digests.first().and_then(|digest| digest.split('@').nth(1));
                let or_none = digest.unwrap_or("of no registry").to_owned();
                vec![image.names.join(", "), image.id.clone(), or_none, image.layers.len().to_string()]
            })
            .collect();
        text.push('\n');
        text.push_str(&table(&["SEALED IMAGE", "ID", "DIGEST", "LAYERS"], &rows));
        Ok(text)
    }
}
