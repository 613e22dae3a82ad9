//! What becomes of each request. No I/O but the questions to the real engine that it takes.

use std::io;

use serde_json::{Map, Value, json};

use super::answers::{OLDEST_VERSION, PRODUCT, VERSION, info, version};
use super::create::{self, Wanted};
use super::real::{Real, is_newer};
use super::record::{Refused, Request};
use super::routes::{self, Does, NO_PAGE, Route};
use super::source::{
    self, COMMIT, CONTAINER, CONTAINER_PROXY, FILTERS, IMAGE, IMAGE_ROUTES, SERVER, STORAGE_PROXY, Source,
};

/// The containers' filters that VIC does not know: `container.go`, `unSupportedPsFilters`.
const NO_CONTAINER_FILTERS: [&str; 4] = ["ancestor", "health", "isolation", "is-task"];
/// The images': `image.go`, `unSupportedImageFilters`.
const NO_IMAGE_FILTERS: [&str; 1] = ["dangling"];
/// What a volume can be told: `storage_proxy.go`, `validDriverOptsKeys`, in any case.
const VOLUME_OPTIONS: [&str; 5] = ["volumestore", "capacity", "flags", "container", "image"];
/// What a process in a container can be told: `container_proxy.go`, `CreateExecTask`. `Detach` is read by nobody in 1.13 either.
const EXEC: [&str; 8] =
    ["User", "Tty", "AttachStdin", "AttachStdout", "AttachStderr", "Env", "Cmd", "Detach"];

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Decision {
    /// An answer of VIC's own: a status, a kind of content, a body.
    Answer(u16, &'static str, String),
    Refuse(Refused),
    /// 404, but no more than that the client is newer: it asks again in another way.
    NoSuchWay,
    /// To the real engine as it is.
    Forward,
    /// With another body.
    ForwardInstead(Value),
    /// The same, and the answer is made into one of VIC's.
    Create(Box<Wanted>),
    VolumeCreate(Value),
    Inspect,
    List,
}

/// Something that was sent and has no effect: its name, its value, where that can be seen.
pub(super) type NoEffect = (String, Value, Source);

/// Decides. What has no effect is in the second part.
pub(super) fn decide(request: &Request, real: &Real) -> io::Result<(Decision, Vec<NoEffect>)> {
    if let Err(refused) = check_version(request) {
        return Ok((Decision::Refuse(refused), Vec::new()));
    }
    let Some((route, name)) = routes::find(&request.method, &request.path) else {
        // Every docker command since 18.09 asks so first, and then with GET.
        if request.method == "HEAD" && request.path == "/_ping" {
            return Ok((Decision::NoSuchWay, Vec::new()));
        }
        let refused = Refused::new(404, NO_PAGE, SERVER.at("createMux"));
        return Ok((Decision::Refuse(refused), Vec::new()));
    };
    let mut no_effect = unread_parameters(request, route);
    let decision = match follow(request, route, name, real)? {
        Ok((decision, more)) => {
            no_effect.extend(more);
            decision
        }
        Err(refused) => return Ok((Decision::Refuse(refused), Vec::new())),
    };
    Ok((decision, no_effect))
}

fn check_version(request: &Request) -> Result<(), Refused> {
    let Some(asked) = request.version.as_deref() else { return Ok(()) };
    if is_newer(asked, VERSION) {
        let text = format!(
            "client is newer than server (client API version: {asked}, server API version: {VERSION})"
        );
        return Err(Refused::new(400, text, source::VERSION_PAGE.at("Problem")));
    }
    if is_newer(OLDEST_VERSION, asked) {
        let text = format!(
            "client version {asked} is too old. Minimum supported API version is {OLDEST_VERSION}, please upgrade your client \
             to a newer version"
        );
        return Err(Refused::new(400, text, source::VERSIONS.at("WrapHandler")));
    }
    Ok(())
}

fn unread_parameters(request: &Request, route: &Route) -> Vec<NoEffect> {
    // Clients send the defaults of parameters that came later, too.
    let says_nothing = |value: &str| matches!(value, "" | "0" | "false");
    let unread = request.query.iter().filter(|(name, value)| {
        !says_nothing(value) && !route.query.contains(&name.as_str()) && !route.query.contains(&"*")
    });
    let source = source::ROUTES.at("and the routers beside it");
    unread.map(|(name, value)| (format!("?{name}"), value.as_str().into(), source)).collect()
}

type Followed = Result<(Decision, Vec<NoEffect>), Refused>;

fn follow(request: &Request, route: &Route, name: &str, real: &Real) -> io::Result<Followed> {
    let done = |decision| Ok((decision, Vec::new()));
    let json = |value: Value| done(Decision::Answer(200, "application/json", value.to_string()));
    Ok(match route.does {
        Does::Pass => done(Decision::Forward),
        Does::Lacks(what, source) => Err(Refused::new(500, lacks(what), source)),
        Does::Refuses(status, text, source) => Err(Refused::new(status, text.replace("{}", name), source)),
        Does::Ping => done(Decision::Answer(200, "text/plain; charset=utf-8", "OK".into())),
        Does::Version => json(version()),
        Does::Info => json(info(&real.ask("GET", "/info", None)?.json())),
        Does::Events => Ok((Decision::Forward, labels_of_events(request))),
        Does::ListContainers => {
            filters(request, &NO_CONTAINER_FILTERS, CONTAINER).map(|()| (Decision::List, Vec::new()))
        }
        Does::ListImages => {
            filters(request, &NO_IMAGE_FILTERS, IMAGE).map(|()| (Decision::Forward, Vec::new()))
        }
        Does::Inspect => done(Decision::Inspect),
        Does::Create => create::read(&request.body, real.cpus).map(|wanted| {
            let lacking = wanted.lacking.clone();
            (Decision::Create(Box::new(wanted)), lacking)
        }),
        Does::ExecCreate => Ok(exec(&request.body)),
        Does::Pull if request.parameter("fromImage").is_empty() => {
            Err(Refused::new(500, lacks("ImportImage"), IMAGE.at("ImportImage")))
        }
        Does::Pull => done(Decision::Forward),
        Does::Load => Err(Refused::new(200, lacks("LoadImage"), IMAGE_ROUTES.at("postImagesLoad"))),
        Does::Commit => commit(request, real)?,
        Does::VolumeCreate => volume(&request.body).map(|body| (Decision::VolumeCreate(body), Vec::new())),
    })
}

/// `APINotSupportedMsg`: `errors.go`.
fn lacks(what: &str) -> String {
    format!("{PRODUCT} does not yet implement {what}")
}

fn filters(request: &Request, unknown: &[&str], source: Source) -> Result<(), Refused> {
    let filters: Value = serde_json::from_str(request.parameter("filters")).unwrap_or_default();
    match unknown.iter().find(|name| filters.get(**name).is_some()) {
        None => Ok(()),
        Some(name) => {
            let text = format!("filter {name} is not currently supported by vic");
            let seen = if source == CONTAINER {
                "validateSupport, of containers"
            } else {
                "validateSupport, of images"
            };
            Err(Refused::new(500, text, FILTERS.at(seen)))
        }
    }
}

/// An event of a container carries the labels of its image, not its own: `copyConfigOverrides` leaves them out.
fn labels_of_events(request: &Request) -> Vec<NoEffect> {
    let filters: Value = serde_json::from_str(request.parameter("filters")).unwrap_or_default();
    let source = CONTAINER.at("CreateContainerEventActorWithAttributes, copyConfigOverrides");
    let label = filters.get("label").cloned();
    label.into_iter().map(|label| ("filters.label".to_owned(), label, source)).collect()
}

fn exec(sent: &Value) -> (Decision, Vec<NoEffect>) {
    let fields = sent.as_object().into_iter().flatten();
    let (read, unread): (Vec<_>, Vec<_>) = fields.partition(|(name, _)| EXEC.contains(&name.as_str()));
    let body: Map<String, Value> =
        read.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let set = unread.into_iter().filter(|(name, value)| !create::is_default(name, value));
    let source = CONTAINER_PROXY.at("CreateExecTask");
    (
        Decision::ForwardInstead(body.into()),
        set.map(|(name, value)| (name.clone(), value.clone(), source)).collect(),
    )
}

fn commit(request: &Request, real: &Real) -> io::Result<Followed> {
    let path = format!("/containers/{}/json", request.parameter("container"));
    let runs = real.ask("GET", &path, None)?.json()["State"]["Running"] == true;
    if !runs {
        return Ok(Ok((Decision::Forward, Vec::new())));
    }
    let text = format!(
        "Conflict error from portlayer: {PRODUCT} does not yet support commit of a running container"
    );
    Ok(Err(Refused::new(409, text, COMMIT.at("Commit"))))
}

/// A volume for the real engine, which knows no stores and no capacities.
fn volume(sent: &Value) -> Result<Value, Refused> {
    let driver = sent["Driver"].as_str().unwrap_or_default();
    if !matches!(driver, "local" | "vsphere") {
        let text = format!("error looking up volume plugin {driver}: plugin not found");
        return Err(Refused::new(500, text, STORAGE_PROXY.at("newVolumeCreateReq")));
    }
    let options = sent["DriverOpts"].as_object().into_iter().flatten();
    for (name, _) in options {
        if !VOLUME_OPTIONS.contains(&name.to_lowercase().as_str()) {
            let text = format!("bad driver value - {name} is not a supported option");
            return Err(Refused::new(500, text, STORAGE_PROXY.at("normalizeDriverArgs")));
        }
    }
    Ok(json!({"Name": sent["Name"], "Driver": "local", "Labels": sent["Labels"]}))
}

/// The body of a refusal: JSON since 1.24 (`httputils/errors.go`, `apiVersionSupportsJSONErrors`).
pub(super) fn refusal(request: &Request, refused: &Refused) -> (&'static str, String) {
    if refused.source == IMAGE_ROUTES.at("postImagesLoad") {
        // An error in a stream that has begun: streamformatter, FormatError.
        let error = json!({"errorDetail": {"message": refused.text}, "error": refused.text});
        return ("application/json", format!("{error}\r\n"));
    }
    match request.version.as_deref() {
        Some(version) if !is_newer(version, "1.23") => {
            ("text/plain; charset=utf-8", format!("{}\n", refused.text))
        }
        _ => ("application/json", json!({"message": refused.text}).to_string()),
    }
}
