//! A host's image in which there is nothing of the system that the image under test is made of, but the engine's own programs.

use crate::appliance::BuiltImage;
use crate::command::Call;
use crate::engine;
use crate::host::Host;
use crate::options::image;

/// Packs `dind-init`, the programs of the engine, and the libraries that these name. iptables loads its extensions by itself.
const PACK: &str = r#"
mkdir /parts
keep() { cp --parents --dereference "$@" /parts; }
for name in containerd containerd-shim-runc-v2 dind-init docker dockerd docker-proxy runc; do
    keep "$(command -v $name)"
done
tables=$(readlink -f "$(command -v iptables-nft)")
keep "$tables" /usr/lib/*/xtables/*.so
for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    ln -s "$tables" /parts/usr/sbin/$name
done
# ldd fails for what is static.
libraries=$(find /parts -type f -exec ldd {} + 2>/dev/null | grep -o '/lib[^ :]*' | sort -u) || true
keep $libraries
tar -C /parts -c .
"#;

/// What the host's image says of itself.
const CHANGES: [&str; 3] = [
    "ENTRYPOINT [\"/usr/sbin/dind-init\"]",
    "VOLUME /var/lib/docker",
    "ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin",
];

impl BuiltImage {
    /// Makes such an image of what is in the image under test.
    #[track_caller]
    pub fn of_the_engine() -> Self {
        engine::prepare();
        let name = engine::unique_name();
        let run = "set -o pipefail; docker run --rm --entrypoint sh \"$IMAGE\" -euc \"$PACK\" | docker import \"$@\"";
        let call = Call::new("bash").args(["-c", run, "import"]).args(changes()).args(["-", &name]);
        call.env("IMAGE", image()).env("PACK", PACK).within(200).run().ok();
        Self::named(name)
    }
}

impl Host {
    /// Makes such an image inside the host, of what is in the host itself.
    #[track_caller]
    pub fn import_engine(&self, name: &str) {
        let run = "set -o pipefail; sh -euc \"$0\" | docker import \"$@\"";
        let exec = ["exec", self.name(), "bash", "-c", run, PACK];
        Call::new("docker").args(exec).args(changes()).args(["-", name]).within(200).run().ok();
    }
}

fn changes() -> impl Iterator<Item = &'static str> {
    CHANGES.iter().flat_map(|change| ["--change", change])
}
