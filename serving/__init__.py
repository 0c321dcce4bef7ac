"""The gateway: one service over the models of one repository, behind gRPC and HTTP."""
