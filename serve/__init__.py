"""The Ray Serve application: `serve.app:build`."""
