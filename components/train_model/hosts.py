"""How the hosts of one training learn their place: variables of the environment."""

# Number of hosts; which one this is, from 0; NAME:PORT of host 0.
COUNT, INDEX, COORDINATOR = "FLOWERS_HOSTS", "FLOWERS_HOST", "FLOWERS_COORDINATOR"
