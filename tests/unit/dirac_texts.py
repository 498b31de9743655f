"""Two parts of a small DIRAC configuration, in which every test of the import finds what it looks at."""

OPERATIONS = """\
DIRAC
{
  Setup = Prod
  Setups
  {
    Prod
    {
    }
    Cert
    {
    }
  }
  Configuration
  {
    Servers = dips://a.example.org:9135/Configuration/Server
    Servers += dips://b.example.org:9135/Configuration/Server
  }
}
Registry
{
  VO
  {
    lhcb
    {
    }
    biomed
    {
    }
  }
}
Operations
{
  Defaults
  {
    Pilot
    {
      Version = v8.0.1
      Project = DIRAC
      CVMFS_locations = /cvmfs/a, /cvmfs/b
      RemoteLogging = True
      Commands
      {
        AREX = CheckWorkerNode, InstallDIRAC, LaunchAgent
        Cloud = InstallDIRAC, LaunchAgent
      }
    }
    JobScheduling
    {
      Speed = fast
    }
  }
  Prod
  {
    Pilot
    {
      Version = v8.0.2
    }
  }
  Cert
  {
    Pilot
    {
      Version = v9
    }
  }
  lhcb
  {
    Defaults
    {
      Pilot
      {
        Version = v10
        Project = LHCb
      }
    }
    Prod
    {
      Pilot
      {
        Version = v11
        Extensions = LHCb
      }
    }
    Pilot
    {
      Version = v12
      CommandExtensions = LHCbPilot
      Commands
      {
        HTCondorCE = CheckWorkerNode, LHCbInstallDIRAC, LaunchAgent
      }
    }
  }
}
"""
SITE = """\
Resources
{
  Computing
  {
    DefaultLocalCEType = InProcess
    CEDefaults
    {
      SharedArea = /cvmfs/shared
    }
  }
  Sites
  {
    LCG
    {
      LCG.CERN.ch
      {
        Mail = admin@example.org
        CEs
        {
          arc.example.org
          {
            CEType = AREX
            LocalCEType = Pool
            Tag = GPU
            NumberOfProcessors = 4
            Queues
            {
              long
              {
                VO = LHCb
                Tag = Big
                RequiredTag = GPU
                maxCPUTime = 1440
                SI00 = 2500
                MaxTotalJobs = 100
                MaxWaitingJobs = 20
                MaxRAM = 16000
                UserEnvVariables = A:::1, B:::x:::y
                GenericOptions = diracInstallOnly, Other
                Nonsense = 1
              }
              short
              {
                VO = lhcb
                NumberOfProcessors = 0
                CPUTime = 7000
              }
              med
              {
                VO = biomed
                MaxTotalJobs = 7
                MaxWaitingJobs = 7
              }
            }
          }
          fog.example.org
          {
            CEType = Fog
            Queues
            {
              default
              {
              }
            }
          }
          vac.example.org
          {
            CEType = Vac
            Queues
            {
              default
              {
              }
            }
          }
          bare.example.org
          {
            CEType = AREX
          }
          untyped.example.org
          {
            Queues
            {
              default
              {
              }
            }
          }
        }
      }
    }
  }
}
"""
