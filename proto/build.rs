//! Compiles the protocols with a protobuf compiler written in Rust, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=ipam.proto");
    println!("cargo::rerun-if-changed=cri.proto");
    println!("cargo::rerun-if-changed=policy.proto");
    for ours in ["ipam.proto", "policy.proto"] {
        let compiled = protox::compile([ours], ["."])?;
        tonic_prost_build::configure().build_transport(false).compile_fds(compiled)?;
    }
    let cri = protox::compile(["cri.proto"], ["."])?;
    tonic_prost_build::configure().build_server(false).build_transport(false).compile_fds(cri)?;
    Ok(())
}
