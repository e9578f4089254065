"""Loss over batch size and learning rate at many (params, tokens): settings, vertices, basins, optimum."""
