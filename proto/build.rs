//! Compiles the protocols with a protobuf compiler written in Rust, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=ipam.proto");
    println!("cargo::rerun-if-changed=cri.proto");
    let ipam = protox::compile(["ipam.proto"], ["."])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(ipam)?;
    let cri = protox::compile(["cri.proto"], ["."])?;
    tonic_prost_build::configure().build_server(false).build_transport(false).compile_fds(cri)?;
    Ok(())
}
