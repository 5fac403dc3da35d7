//! scripts/versions.env has every version once: everything that installs a program, or describes how, uses it.

use super::{documents::all_documents, makefile, programs::Programs, read, read_all, workflows};

/// The names and values of versions.env.
pub fn versions() -> Vec<(String, String)> {
    let text = read("scripts/versions.env");
    let versions: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once('=').expect("NAME=value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(!versions.is_empty());
    versions
}

fn version(name: &str) -> String {
    let found = versions().into_iter().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no {name}")).1
}

#[test]
fn every_version_is_in_one_place_only() {
    let mut texts = read_all("scripts", ".sh");
    texts.extend(workflows::workflows());
    texts.push(("Makefile".to_owned(), makefile::text()));
    for (name, text) in texts {
        for (variable, version) in versions() {
            assert!(
                !text.contains(&version),
                "{name} has {version}: take {variable}"
            );
        }
    }
}

#[test]
fn every_version_names_the_source_of_newer_ones() {
    let text = read("scripts/versions.env");
    let lines: Vec<_> = text.lines().collect();
    for pair in lines
        .windows(2)
        .filter(|pair| pair[1].contains('=') && !pair[1].starts_with('#'))
    {
        let found = ["# renovate: datasource=", "# Fixed: "]
            .iter()
            .any(|start| pair[0].starts_with(start));
        assert!(found, "{}", pair[1]);
    }
}

#[test]
fn the_documents_install_what_make_cluster_installs() {
    let programs = Programs::new("cluster");
    let documents = all_documents();
    // (what runs the cluster, a part of the command that installs something, its version)
    let images = "ghcr.io/spinframework/containerd-shim-spin";
    for (with, part, name) in [
        ("k3d", format!("--image {images}/k3d:"), "K3D_SHIM_VERSION"),
        (
            "kind",
            format!("--image {images}/kind:"),
            "KIND_SHIM_VERSION",
        ),
        (
            "kind",
            "https://kubernetes-sigs.github.io/metrics-server --version ".into(),
            "METRICS_SERVER_VERSION",
        ),
        (
            "kind",
            "https://traefik.github.io/charts --version ".into(),
            "TRAEFIK_VERSION",
        ),
        (
            "kind",
            "oci://quay.io/jetstack/charts/cert-manager --version ".into(),
            "CERT_MANAGER_VERSION",
        ),
        (
            "k3d",
            "oci://ghcr.io/spinframework/charts/spin-operator --version ".into(),
            "SPIN_OPERATOR_VERSION",
        ),
        (
            "k3d",
            "https://kedacore.github.io/charts --version ".into(),
            "KEDA_VERSION",
        ),
    ] {
        let run = programs.make(&["cluster", &format!("CLUSTER_WITH={with}")]);
        assert!(run.success, "{run}");
        let part = part + &version(name);
        run.position(&part);
        assert!(documents.contains(&part), "the documents lack {part}");
    }
    let run = programs.make(&["cluster"]);
    for part in ["runtime-class", "crds", "shim-executor"].map(|asset| {
        format!(
            "https://github.com/spinframework/spin-operator/releases/download/v{}/spin-operator.{asset}.yaml",
            version("SPIN_OPERATOR_VERSION")
        )
    }) {
        run.position(&part);
        assert!(documents.contains(&part), "the documents lack {part}");
    }
    let port = "8081:80@loadbalancer";
    run.position(port);
    assert!(documents.contains(port), "the documents lack {port}");
}
