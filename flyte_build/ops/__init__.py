"""Operations behind the commands. They choose the stores, engines and registries to use."""
