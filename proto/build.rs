//! Generates the gRPC code from `decnet/v1/*.proto` without a protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=decnet");
    #[allow(
        clippy::disallowed_methods,
        reason = "how cargo tells a build script its features"
    )]
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    if !grpc {
        return Ok(());
    }
    let descriptors = protox::compile(["decnet/v1/fleet.proto"], ["."])?;
    tonic_prost_build::configure()
        .bytes(".decnet.v1.SpooledEvent.line")
        .bytes(".decnet.v1.Assign.hydrated")
        .codec_path("crate::codec::QuietCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
